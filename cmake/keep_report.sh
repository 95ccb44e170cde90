#!/bin/sh
# Runs a compiler and stores its standard error beside the object file, as NAME.o.ptxas. Prints it on failure.
object=
previous=
for argument in "$@"; do
  [ "$previous" = -o ] && object=$argument
  previous=$argument
done
if "$@" 2>"$object.ptxas"; then
  # Warnings stay visible.
  grep -v '^ptxas info\|^    [0-9]* bytes' "$object.ptxas" >&2 || :
else
  code=$?
  cat "$object.ptxas" >&2
  exit "$code"
fi
