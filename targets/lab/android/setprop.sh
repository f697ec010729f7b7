#!/system/bin/sh
# Set a property until the next start; those that begin with `ro.` are set once, by the system.
properties=/dev/__properties__/all
if [ $# != 2 ]; then
  print -u2 "usage: setprop NAME VALUE"
  exit 1
fi
case $1 in
  ro.*)
    print -u2 "Failed to set property '$1' to '$2'."
    exit 1
    ;;
esac
{
  while IFS='=' read -r name value; do
    [ "$name" = "$1" ] || print -r -- "$name=$value"
  done <$properties
  print -r -- "$1=$2"
} >$properties.$$
mv $properties.$$ $properties
