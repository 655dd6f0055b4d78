#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""vmlinux.py BZIMAGE OUT: takes the uncompressed ELF out of a bzImage, so that QEMU can boot it by PVH: decompressing it in the guest
takes longer without KVM than all the rest of the boot. Offsets: Documentation/arch/x86/boot.rst (setup_sects, payload_offset)."""
import bz2
import lzma
import struct
import subprocess
import sys
import zlib

with open(sys.argv[1], "rb") as file:
    image = file.read()
setup_sectors = image[0x1F1] or 4
offset, length = struct.unpack_from("<II", image, 0x248)
start = (setup_sectors + 1) * 512 + offset
payload = image[start:start + length]
if payload.startswith(b"\xfd7zXZ\0"):
    # The payload ends with the size of what it holds, after the compressed stream.
    kernel = lzma.LZMADecompressor().decompress(payload)
elif payload.startswith(b"\x1f\x8b"):
    kernel = zlib.decompressobj(31).decompress(payload)
elif payload.startswith(b"BZh"):
    kernel = bz2.BZ2Decompressor().decompress(payload)
elif payload.startswith(b"\x28\xb5\x2f\xfd"):
    kernel = subprocess.run(["zstd", "-dcq"], input=payload[:-4], stdout=subprocess.PIPE, check=True).stdout
else:
    sys.exit(f"{sys.argv[1]}: compressed in a way that is not known here: {payload[:8]!r}")
if not kernel.startswith(b"\x7fELF"):
    sys.exit(f"{sys.argv[1]}: holds no ELF image")
with open(sys.argv[2], "wb") as file:
    file.write(kernel)
