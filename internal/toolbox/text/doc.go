// Package text holds the toolbox's commands that read lines and write lines.
// Regular expressions are Go's: what scripts use of POSIX's basic syntax is
// translated (see basic.go), back references are not to be had.
package text
