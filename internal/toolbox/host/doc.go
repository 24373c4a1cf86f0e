// Package host holds the toolbox's commands about the process, the machine and
// its limits. Programs that another program stops must stop: nothing here
// catches a signal.
package host
