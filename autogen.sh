#!/bin/sh
# Make configure and the Makefile templates from their sources (needs autoconf and automake).
set -e
cd "$(dirname "$0")"
exec autoreconf --install --force
