#!/bin/sh
# An IPAM plugin that notes how it was called. Its files are in the first directory of CNI_PATH: answer.<command> is
# what it prints, and with fail.<command> it fails.
files=${CNI_PATH%%:*}
cat >"$files/stdin.$CNI_COMMAND"
env | grep '^CNI_' | sort >"$files/env.$CNI_COMMAND"
echo "$CNI_COMMAND" >>"$files/calls"
echo "fake-ipam was asked to $CNI_COMMAND" >&2
if [ -f "$files/answer.$CNI_COMMAND" ]; then
    cat "$files/answer.$CNI_COMMAND"
fi
! [ -f "$files/fail.$CNI_COMMAND" ]
