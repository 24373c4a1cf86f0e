// Package applets lists the commands of isle-toolbox. It stands alone so that
// whoever builds the built-in image need not link the commands themselves.
package applets

// Names are the commands, each a link to the one program in the image.
var Names = []string{
	"sh", "serve", "get", "dig", "ping", "nc", "perf", "ip",
	"basename", "cat", "chmod", "chown", "cp", "cut", "date", "dd", "df", "dirname", "dmesg", "du", "echo", "env", "false",
	"find", "free", "grep", "gzip", "head", "hostname", "id", "kill", "ln", "ls", "mkdir", "mkfifo", "mktemp", "mount", "mv",
	"nproc", "printf", "ps", "pwd", "readlink", "rm", "rmdir", "sed", "seq", "sha256sum", "sleep", "sort", "stat", "stress", "stty", "sync",
	"tail", "tar", "tee", "test", "touch", "tr", "true", "tty", "umount", "uname", "uniq", "wc", "wget", "which", "whoami", "xargs", "yes",
}
