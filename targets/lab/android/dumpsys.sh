#!/system/bin/sh
# The battery service and the power HAL, from this device's /sys; there is no other.
rails=/sys/devices/platform/lab-power/odpm/hal
if [ "$1" = android.hardware.power.stats.IPowerStats/default ] && [ -r $rails ]; then
  exec cat $rails
fi
if [ "$1" != battery ]; then
  print -u2 -r "Can't find service: $1"
  exit
fi
# One file of the battery's folder; empty when it has none of that name.
of() { [ -r /sys/class/power_supply/battery/$1 ] && read -r value </sys/class/power_supply/battery/$1 && print -r -- "$value"; }
case $(of status) in
  Charging) status=2 ;;
  Discharging) status=3 ;;
  'Not charging') status=4 ;;
  Full) status=5 ;;
  *) status=1 ;;
esac
usb=false
[ $status = 2 ] && usb=true
cat <<END
Current Battery Service state:
  AC powered: false
  USB powered: $usb
  Wireless powered: false
  status: $status
  health: 2
  present: true
  level: $(of capacity)
  scale: 100
  voltage: $(($(of voltage_now) / 1000))
  temperature: $(of temp)
  technology: $(of technology)
END
