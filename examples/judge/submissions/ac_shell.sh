read numbers
total=0
for number in $numbers; do total=$((total + number)); done
echo $total
