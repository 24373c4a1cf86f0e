// Package files holds the toolbox's commands that make, show and move files.
// Where u-root's library has one with the options that people use, it is taken
// from there (uroot.go); the others are our own.
package files
