#!/bin/busybox sh
# The first program of an ARM64 virtual machine: makes the file system on the disk into this device, and becomes its
# sshd. /device holds what belongs to this device only.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module.ko"; done < /modules/order

mount -t ext4 -o noatime,noinit_itable /dev/vda /root
# So much of the disk belongs to nobody, root included; what is left is as large as was asked for.
echo $(($(stat -f -c %f /root) - $(cat /device/disk_blocks))) > /sys/fs/ext4/vda/reserved_clusters
for folder in proc sys dev; do mount --move /$folder /root/$folder; done
mkdir /root/dev/pts /root/dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /root/dev/pts
mount -t tmpfs -o mode=1777,size=64m shm /root/dev/shm
mount -t tmpfs -o mode=755,size=16m run /root/run
cp -a /device/etc /device/run /root
mkdir -p -m 755 /root/run/sshd /root/home/pi
chown 1000:1000 /root/home/pi

hostname -F /root/etc/hostname
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
chroot /root /usr/sbin/sshd -f /run/console/sshd_config
exec switch_root /root /usr/sbin/sshd -D -e
