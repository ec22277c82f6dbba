"""What `run` starts: cases come in on standard input, comparisons go out on standard output."""

import pickle
import sys

from gossamer.selftest.comparison import compare

if __name__ == "__main__":
    pickle.dump(compare(pickle.load(sys.stdin.buffer)), sys.stdout.buffer)
