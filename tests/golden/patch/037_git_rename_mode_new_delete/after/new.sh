#!/bin/sh
true