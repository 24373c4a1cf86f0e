// Package bridge is the driver of networks of one host. README.md says what a user may
// set and draws the way of a packet; options.go reads the options, package bridged does
// the work.
package bridge
