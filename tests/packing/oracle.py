"""The layout bit by bit in slow Python, written from `docs/packed-layout.md` and nothing else."""

LANES = 16


def word_byte(lane_byte: int, lane: int, lane_bytes: int) -> int:
    """Where byte `lane_byte` of a lane stands in its tile."""
    words, tail = lane_bytes // 4, lane_bytes % 4
    if lane_byte < 4 * words:
        return 64 * (lane_byte // 4) + 4 * lane + lane_byte % 4
    return 64 * words + tail * lane + lane_byte - 4 * words


def power_plane(lanes: list[list[int]], width: int) -> bytearray:
    """Fields of 1, 2, 4 or 8 bits, one list for each lane of a tile."""
    lane_bytes = len(lanes[0]) * width // 8
    words, tail = lane_bytes // 4, lane_bytes % 4
    plane = bytearray(LANES * lane_bytes)
    for lane, fields in enumerate(lanes):
        for number, field in enumerate(fields):
            word, f = divmod(number, 32 // width)
            if word < words:
                byte, shift = 4 * word + f % 4, width * (f // 4)
            else:
                byte, shift = 4 * words + f % tail, width * (f // tail)
            for bit in range(width):
                if field >> bit & 1:
                    plane[word_byte(byte, lane, lane_bytes)] |= 1 << (shift + bit)
    return plane


def field_plane(lanes: list[list[int]], bits: int) -> bytes:
    """Fields of any width: split in powers of two, the low bits first."""
    plane, low = bytearray(), 0
    for width in (8, 4, 2, 1):
        if bits & width:
            part = [[field >> low & ((1 << width) - 1) for field in fields] for fields in lanes]
            plane += power_plane(part, width)
            low += width
    return bytes(plane)


def bitmap_plane(lanes: list[list[bool]]) -> bytes:
    """One bit for each original element of each lane."""
    lane_bytes = len(lanes[0]) // 8
    plane = bytearray(LANES * lane_bytes)
    for lane, kept in enumerate(lanes):
        for element, keep in enumerate(kept):
            if keep:
                plane[word_byte(element // 8, lane, lane_bytes)] |= 1 << element % 8
    return bytes(plane)


def dense(codes: list[list[int]], bits: int) -> bytes:
    """The values plane of codes `[in][out]`, tile after tile."""
    return b"".join(field_plane(lanes, bits) for lanes in tiles(codes, 0))


def sparse(
    codes: list[list[int]], keep: list[list[bool]], bits: int, n: int, m: int
) -> tuple[bytes, bytes]:
    """The planes of values and indices of codes `[in][out]`, exactly `n` of `m` of them kept."""
    values, indices = b"", b""
    width = {2: 1, 4: 2, 8: 3, 16: 4}[m]
    for lanes, kept in zip(tiles(codes, 0), tiles(keep, None), strict=True):
        # The unused lanes of the last tile keep zeros in the first places.
        kept = [[i % m < n if k is None else k for i, k in enumerate(lane)] for lane in kept]
        pairs = [list(zip(*both, strict=True)) for both in zip(lanes, kept, strict=True)]
        values += field_plane([[code for code, k in lane if k] for lane in pairs], bits)
        if n * width <= m:
            places = [[i % m for i, k in enumerate(lane) if k] for lane in kept]
            indices += field_plane(places, width)
        else:
            indices += bitmap_plane(kept)
    return values, indices


def tiles(rows: list[list], padding: int | None) -> list[list[list]]:
    """`[in][out]` as tiles of 16 lanes, each lane the list of its elements."""
    outputs = [list(column) for column in zip(*rows, strict=True)]
    outputs += [[padding] * len(rows) for _ in range(-len(outputs) % LANES)]
    return [outputs[i : i + LANES] for i in range(0, len(outputs), LANES)]
