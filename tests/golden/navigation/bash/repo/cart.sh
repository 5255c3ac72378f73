#!/usr/bin/env bash
LIMIT=10
readonly NAME=cart

total() {
    echo "$LIMIT"
}

function make_cart {
    total "$@"
}
