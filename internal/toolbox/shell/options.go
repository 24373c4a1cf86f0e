package shell

import (
	"fmt"
	"strings"
)

// parse reads sh's arguments: clusters of single letters, then operands.
func parse(args []string) (call, error) {
	var c call
	wantCommand := false
	for len(args) > 0 && len(args[0]) > 1 && (args[0][0] == '-' || args[0][0] == '+') {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			break
		}
		if strings.HasSuffix(arg, "o") && len(args) > 0 {
			c.set = append(c.set, arg[:1]+"o", args[0])
			arg, args = arg[:len(arg)-1], args[1:]
		}
		wantCommand = c.letters(arg) || wantCommand
	}
	if wantCommand {
		if len(args) == 0 {
			return c, fmt.Errorf("-c needs a command")
		}
		c.command, c.hasCommand, args = args[0], true, args[1:]
	}
	c.operands = args
	return c, nil
}

// letters takes in one cluster and reports whether it asks for a command.
func (c *call) letters(cluster string) (wantCommand bool) {
	for _, l := range cluster[1:] {
		switch l {
		case 'c':
			wantCommand = true
		case 'i':
			c.interactive = true
		case 's':
			c.stdin = true
		case 'l': // a login shell reads files that the image does not have
		default:
			c.set = append(c.set, cluster[:1]+string(l))
		}
	}
	return wantCommand
}
