#!/bin/sh
# The Raspberry Pi firmware's command, answering from this board's /sys.
zone=/sys/class/thermal/thermal_zone0/temp
clock=/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq
firmware=/sys/devices/platform/lab-power/firmware
case "$1" in
  measure_temp) read -r t <$zone; echo "temp=$((t / 1000)).$((t % 1000 / 100))'C" ;;
  measure_volts) echo "volt=0.8563V" ;;
  measure_clock) read -r khz <$clock; echo "frequency(48)=$((khz * 1000))" ;;
  get_throttled) cat $firmware/get_throttled 2>/dev/null || echo "throttled=0x0" ;;
  pmic_read_adc) cat $firmware/pmic_read_adc 2>/dev/null || { echo 'error=1 error_msg="Command not registered"'; exit 255; } ;;
  version) printf 'Mar 17 2024 10:50:37\nCopyright (c) 2012 Broadcom\nversion e7c1b3d (clean) (release) (start)\n' ;;
  *) echo 'error=1 error_msg="Command not registered"'; exit 255 ;;
esac
