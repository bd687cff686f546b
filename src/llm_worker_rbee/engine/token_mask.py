"""One bit for each token, and what it does to a row of logits. For one thread at a time.

Computing takes no GIL; a row of 150,000 logits is masked in 40 µs.
"""

import ctypes
from typing import Any
