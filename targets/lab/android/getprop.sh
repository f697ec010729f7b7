#!/system/bin/sh
# All properties, or the one asked for, or else the default given with it.
properties=/dev/__properties__/all
if [ $# = 0 ]; then
  while IFS='=' read -r name value; do print -r -- "[$name]: [$value]"; done <$properties | sort
  exit
fi
while IFS='=' read -r name value; do
  if [ "$name" = "$1" ]; then
    print -r -- "$value"
    exit
  fi
done <$properties
print -r -- "$2"
