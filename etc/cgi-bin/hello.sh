#!/bin/sh
# Says hello to whoever asks, and gives back what it is sent.
echo "Content-Type: text/plain; charset=utf-8"
echo
echo "$GREETING, $REMOTE_ADDR!"
cat
