#!/usr/bin/env bash
# Install what the tests need beside Python: a real sshd, a real browser, a database server, C compilers and the programs
# of the device lab. Without root it only says what is missing; tests that need it are then skipped with the reason (in
# CI they fail).
set -euo pipefail
missing=()
[ -x /usr/sbin/sshd ] || missing+=(openssh-server)
command -v ip >/dev/null || missing+=(iproute2)
command -v adb >/dev/null || missing+=(adb)
[ -e /usr/lib/binfmt.d/qemu-aarch64.conf ] || missing+=(qemu-user-static)
compgen -G "/usr/lib/*/faketime/libfaketime.so.1" >/dev/null || missing+=(libfaketime)
command -v qemu-system-aarch64 >/dev/null || missing+=(qemu-system-arm)
PATH="$PATH:/usr/sbin:/sbin" command -v mke2fs >/dev/null || missing+=(e2fsprogs)
command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
command -v fusermount3 >/dev/null || missing+=(fuse3)
command -v initdb >/dev/null || compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null || missing+=(postgresql)
command -v zipalign >/dev/null || missing+=(zipalign)
command -v aapt >/dev/null || missing+=(aapt)
[ -e /usr/share/android-framework-res/framework-res.apk ] || missing+=(android-framework-res)
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v aarch64-linux-gnu-gcc >/dev/null || missing+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
command -v chromium >/dev/null || missing+=(chromium)
command -v chromedriver >/dev/null || missing+=(chromium-driver)
[ ${#missing[@]} = 0 ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  # Installing sshd must not start one on this machine.
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  apt-get update -q
  apt-get install -y -q --no-install-recommends "${missing[@]}"
else
  echo "for all tests to run: sudo apt-get install --no-install-recommends ${missing[*]}"
fi
