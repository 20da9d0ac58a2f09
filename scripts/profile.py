#!/usr/bin/env python3
"""Groups samples of perf into parts and prints them as a table. Reads `perf script -F ip,sym,dso`; see scripts/profile.sh.

Usage: profile.py TITLE [--functions]
--functions adds the functions of each part.
"""

import collections
import re
import sys

# The first pattern that matches a function's name, or its file, determines the part.
PARTS = (
    ("kernel: sockets, files, scheduling", r"\[kernel|\[guest|\[k\]|\[vdso"),
    ("allocation", r"\bmi_|_mi_|mimalloc|alloc::alloc|__rust_alloc|__rdl_|raw_vec|malloc|realloc|cfree"),
    ("copying and comparing bytes", r"memcpy|memmove|memset|memcmp|bcmp|__mem"),
    ("searching bytes", r"memchr|memmem|aho_corasick"),
    ("JSON", r"serde_json|serde::|serde_core|RawValue|itoa|ryu|zmij|lexical"),
    ("reading and building documents", r"cosmos_rewind::change|cosmos_rewind::host::incoming|cosmos_rewind::projection|cosmos_rewind::history"),
    ("hashing", r"sha2|sha256|hmac|digest|siphash|SipHash|Sip13|murmur|hashbrown|xxh"),
    ("TLS", r"rustls|\bring::|aws_lc|native_tls|openssl"),
    ("HTTP client", r"hyper|reqwest|\bhttp::|h2::|httparse|tower|url::|percent_encoding|idna"),
    ("Cosmos client library", r"azure_data_cosmos|azure_core|typespec"),
    ("runtime (tokio), polling", r"tokio|mio::|futures|parking_lot|std::sys|pthread|core::task|epoll"),
    ("formatting, times", r"core::fmt|alloc::fmt|chrono|time::|core::str|core::num|csv"),
    ("the program's other code", r"cosmos_rewind"),
    ("sorting, collections", r"core::slice|alloc::collections|alloc::vec|BTree|indexmap|alloc::string|core::iter"),
)


def main():
    title, functions = sys.argv[1], "--functions" in sys.argv[2:]
    counts, names = collections.Counter(), collections.defaultdict(collections.Counter)
    for line in sys.stdin:
        fields = line.split(None, 1)
        if len(fields) < 2:
            continue
        name = fields[1].strip()
        part = next((part for part, pattern in PARTS if re.search(pattern, name)), "other")
        counts[part] += 1
        names[part][name] += 1
    total = sum(counts.values())
    if not total:
        sys.exit("error: no samples")
    print(f"| {title} | share of CPU |\n|---|---|")
    for part, count in counts.most_common():
        print(f"| {part} | {count / total:.0%} |")
        if functions:
            for name, own in names[part].most_common(8):
                print(f"    {own / total:6.1%}  {name[:150]}")
    print(f"\n{total:,} samples")


main()
