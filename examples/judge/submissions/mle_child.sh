python3 -c 'x = bytearray(1 << 30)'
echo 6
