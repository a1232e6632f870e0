#!/bin/sh
# First process of the tiny Linux: says what it is on every console, obeys the power button, offers a shell.
# Under emulation each process costs about 20 ms, so what the shell can do itself it does.
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys
mount -t tmpfs none /tmp

# The serial line and the screen may be absent; a console that can't be opened isn't written to.
consoles=
for console in ttyS0 tty0; do
  if (: >/dev/$console) 2>/dev/null; then consoles="$consoles $console"; fi
done
say() {
  for console in $consoles; do echo "$1" >/dev/$console; done
}

read -r _ _ kernel _ </proc/version
while read -r field amount _; do
  if [ "$field" = MemTotal: ]; then break; fi
done </proc/meminfo
cpus=0
for cpu in /sys/devices/system/cpu/cpu[0-9]*; do cpus=$((cpus + 1)); done

say ''
say 'Virtgraph tiny Linux'
say "kernel  $kernel"
say "memory  $((amount / 1024)) MiB"
say "CPUs    $cpus"

while read -r module; do insmod "/lib/modules/$module"; done </lib/modules/order

# The button is open before "ready" is said: a power-down that is asked for after that line is never missed.
button=
for device in /sys/class/input/event*; do
  read -r name <"$device/device/name"
  if [ "$name" = 'Power Button' ]; then button="/dev/input/${device##*/}"; fi
done
if [ -n "$button" ]; then
  exec 3<"$button"
  (
    dd bs=24 count=1 <&3 >/dev/null 2>&1
    say 'powering off'
    poweroff -f
  ) &
  exec 3<&-
fi

for disk in /sys/block/vd*; do
  if [ -e "$disk/size" ]; then
    read -r sectors <"$disk/size"
    say "disk    ${disk##*/}, $((sectors / 2048)) MiB"
  fi
done

# The address comes when it comes: "ready" does not wait for a server that may not be there.
if [ -e /sys/class/net/eth0 ]; then
  ip link set eth0 up
  consoles=$consoles udhcpc -f -i eth0 -s /etc/lease >/dev/null 2>&1 &
fi
say 'ready'

# One shell per console, a new one when it ends. The screen's keyboard is that of tty1.
shell() {
  while :; do
    HOME=/ PS1='tiny# ' setsid -c sh -i <"/dev/$1" >"/dev/$1" 2>&1
  done
}
for console in $consoles; do
  if [ "$console" = tty0 ]; then shell tty1 & else shell "$console" & fi
done
while :; do wait; done
