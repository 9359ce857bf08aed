"""Takes its time to be imported."""

import time

time.sleep(0.3)
ANSWER = "imported"
