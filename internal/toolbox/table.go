package toolbox

import (
	"isle/internal/toolbox/applet"
	"isle/internal/toolbox/files"
	"isle/internal/toolbox/host"
	"isle/internal/toolbox/nettools"
	"isle/internal/toolbox/shell"
	"isle/internal/toolbox/text"
)

// commands is every command by name.
func commands() map[string]applet.Func {
	return map[string]applet.Func{
		"sh": shell.Run,
		// What the shell has built in.
		"echo": shell.Builtin("echo"), "printf": shell.Builtin("printf"), "test": shell.Builtin("test"),
		"pwd": shell.Builtin("pwd"), "true": shell.Builtin("true"), "false": shell.Builtin("false"),

		"serve": nettools.Serve, "get": nettools.Get, "wget": nettools.Wget, "dig": nettools.Dig, "ping": nettools.Ping,
		"nc": nettools.Netcat, "perf": nettools.Perf, "ip": nettools.IP,

		"cut": text.Cut, "grep": text.Grep, "head": text.Head, "sed": text.Sed, "seq": text.Seq, "sort": text.Sort,
		"tail": text.Tail, "tee": text.Tee, "tr": text.Tr, "uniq": text.Uniq, "wc": text.Wc, "yes": text.Yes,

		"basename": files.Basename, "dirname": files.Dirname, "cat": files.Cat, "chmod": files.Chmod, "chown": files.Chown,
		"cp": files.Cp, "dd": files.Dd, "df": files.Df, "du": files.Du, "find": files.Find, "gzip": files.Gzip, "ln": files.Ln, "ls": files.Ls,
		"mkdir": files.Mkdir, "mkfifo": files.Mkfifo, "mktemp": files.Mktemp, "mv": files.Mv, "readlink": files.Readlink, "rm": files.Rm,
		"rmdir": files.Rmdir, "sha256sum": files.Sha256sum, "stat": files.Stat, "sync": files.Sync, "tar": files.Tar, "touch": files.Touch,

		"date": host.Date, "dmesg": host.Dmesg, "env": host.Env, "free": host.Free, "hostname": host.Hostname, "id": host.ID,
		"kill": host.Kill, "mount": host.Mount, "umount": host.Umount, "nproc": host.Nproc, "ps": host.Ps, "sleep": host.Sleep,
		"stress": host.Stress, "stty": host.Stty, "tty": host.TTY, "uname": host.Uname, "which": host.Which, "whoami": host.Whoami,
		"xargs": host.Xargs,
	}
}
