"""Takes all memory."""

blocks: list[bytearray] = []
while True:
    blocks.append(bytearray(1 << 20))
