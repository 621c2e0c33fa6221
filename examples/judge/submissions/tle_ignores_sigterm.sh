trap '' TERM INT HUP
while :; do sleep 600; done
