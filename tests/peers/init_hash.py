"""Initial weights and their hash, from the text of the protocol (section 3.1), independent of the Rust code.

    pip install blake3 && python tests/peers/init_hash.py

Prints the golden constants of model/src/init.rs. ChaCha12 is written out below; log, cos and sqrt are
the C library's in f64, rounded once to f32.
"""
import math
import struct
from blake3 import blake3

M = 0xFFFFFFFF


def chacha12(seed, stream, block):
    key = struct.pack("<Q", seed) + bytes(24)
    state = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *struct.unpack("<8I", key),
             block & M, block >> 32, stream & M, stream >> 32]
    x = state[:]

    def quarter(a, b, c, d):
        for (p, q, r, n) in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            x[p] = (x[p] + x[q]) & M
            v = x[r] ^ x[p]
            x[r] = ((v << n) | (v >> (32 - n))) & M

    for _ in range(6):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return [(a + b) & M for a, b in zip(x, state)]


def tensor(seed, stream, count):
    out = bytearray()
    for i in range(count):
        if i % 4 == 0:
            words = chacha12(seed, stream, i // 4)
        w = words[4 * (i % 4):4 * (i % 4) + 4]
        u = [((w[j] | w[j + 1] << 32) >> 11) for j in (0, 2)]
        a, b = ((n + 0.5) / 2.0**53 for n in u)
        out += struct.pack("<f", 0.02 * (math.sqrt(-2.0 * math.log(a)) * math.cos(2.0 * math.pi * b)))
    return bytes(out)


def theta_hash(hidden, layers, q, kv, ffn, vocab, tied, seed):
    shapes = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    if not tied:
        shapes["lm_head.weight"] = (vocab, hidden)
    for i in range(layers):
        p = f"model.layers.{i}."
        shapes |= {p + "input_layernorm.weight": (hidden,), p + "post_attention_layernorm.weight": (hidden,),
                   p + "self_attn.q_proj.weight": (q, hidden), p + "self_attn.k_proj.weight": (kv, hidden),
                   p + "self_attn.v_proj.weight": (kv, hidden), p + "self_attn.o_proj.weight": (hidden, q),
                   p + "mlp.gate_proj.weight": (ffn, hidden), p + "mlp.up_proj.weight": (ffn, hidden),
                   p + "mlp.down_proj.weight": (hidden, ffn)}
    hashes = b""
    for stream, name in enumerate(sorted(shapes, key=str.encode)):
        shape = shapes[name]
        values = struct.pack("<f", 1.0) * shape[0] if len(shape) == 1 else tensor(seed, stream, shape[0] * shape[1])
        hashes += blake3(values).digest()
    return blake3(hashes).hexdigest()


if __name__ == "__main__":
    print("tiny", theta_hash(32, 1, 32, 32, 64, 320, False, 0))
    print("tied", theta_hash(32, 1, 32, 16, 64, 320, True, 7))
    print("byte-1m", theta_hash(128, 4, 128, 128, 384, 320, False, 42))
