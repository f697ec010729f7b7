#!/bin/busybox sh
# The first program of an ARM64 virtual machine: makes the file system of the disk into this device, and becomes its
# sshd. /device holds what belongs to this one device only: its /etc, its address and its label.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module.ko"; done < /modules/order
mount -t ext4 -o noatime,nodiscard /dev/vda /root
mount --move /proc /root/proc
mount --move /sys /root/sys
mount --move /dev /root/dev
mkdir /root/dev/pts /root/dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /root/dev/pts
mount -t tmpfs -o mode=1777 shm /root/dev/shm
mount -t tmpfs -o mode=755 run /root/run
cp -a /device/etc /device/run /root
mkdir -p -m 755 /root/run/sshd /root/home/pi
chown 1000:1000 /root/home/pi
hostname -F /root/etc/hostname
ip link set lo up
ip addr add "$(cat /device/address)" dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec switch_root /root /usr/sbin/sshd -D -e
