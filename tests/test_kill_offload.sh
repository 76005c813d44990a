#!/bin/sh
# kill -9 as in test_kill.sh, with optimizer state and parameters on disk: nothing of them is left, and the same command goes on.
offload=1
. "${srcdir:-.}/tests/test_kill.sh"
