#!/bin/sh
# postgres_keeper.sh DIR: waits until its standard input has a line or ends, as it does with the VM that holds
# it, whatever that died of; then ends every process of the cluster in DIR/data, and removes DIR.
trap '' HUP INT TERM
dir=$1
case ${dir##*/} in
causeway-pg-*) ;;
*) echo "not a cluster's folder: $dir" >&2 && exit 1 ;;
esac

# Whoever works in DIR/data: a postmaster's children are there still when it is gone.
processes() {
    for cwd in /proc/[0-9]*/cwd; do
        [ "$cwd" -ef "$dir/data" ] && cwd=${cwd%/cwd} && echo "${cwd##*/}"
    done
    [ -d /proc/self ] || { kill -0 "$postmaster" 2>/dev/null && echo "$postmaster"; }
}

signal() {
    pids=$(processes)
    [ -z "$pids" ] || kill "$1" $pids 2>/dev/null
}

read -r _

# The last is the identifier of a segment of shared memory, which stays when a postmaster is killed.
{ read -r postmaster && for _ in 2 3 4 5 6; do read -r _; done && read -r _ segment; } \
    2>/dev/null <"$dir/data/postmaster.pid"

# Those that were stopped have to go on to end.
[ -z "$postmaster" ] || kill -QUIT "$postmaster" 2>/dev/null
signal -CONT
tries=0
while [ -n "$(processes)" ] && [ $tries -lt 50 ]; do
    sleep 0.05
    tries=$((tries + 1))
done
signal -KILL
while [ -n "$(processes)" ]; do sleep 0.05; done
[ -e "$dir/data/postmaster.pid" ] && [ -n "$segment" ] && ipcrm -m "$segment" 2>/dev/null
rm -rf "$dir"
