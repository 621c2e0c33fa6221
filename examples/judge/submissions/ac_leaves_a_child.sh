read numbers
total=0
for number in $numbers; do total=$((total + number)); done
(trap '' TERM HUP; sleep 600; echo late) &
echo $total
