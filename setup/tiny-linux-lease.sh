#!/bin/sh
# What the tiny Linux does with an address that it is given, or that has run out; run by udhcpc, which sets the variables.
case $1 in
  deconfig) ip addr flush dev "$interface" ;;
  bound | renew)
    ip addr replace "$ip/$mask" dev "$interface"
    if [ -n "$router" ]; then ip route replace default via "${router%% *}"; fi
    for server in $dns; do echo "nameserver $server"; done >/etc/resolv.conf
    ;;
esac
if [ "$1" = bound ]; then
  for console in $consoles; do echo "network $interface, $ip/$mask" >/dev/$console; done
fi
