package files

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"isle/internal/toolbox/applet"
)

// Stat shows what the file system knows of a file. Formats: %n %s %a %A %u %g %U %G %i %h %F %Y %y %d %%.
func Stat(_ context.Context, s applet.IO, args []string) error {
	f := applet.Flags(s, "stat [-L] [-c FORMAT] FILE…")
	format := f.StringP("format", "c", "", "what to print")
	follow := f.BoolP("dereference", "L", false, "what a link leads to")
	if err := applet.Parse(f, s, args); err != nil {
		return err
	}
	if err := applet.Need(f, 1); err != nil {
		return err
	}
	stat := os.Lstat
	if *follow {
		stat = os.Stat
	}
	if *format == "" {
		*format = "  File: %n\n  Size: %s\tLinks: %h\tInode: %i\tDevice: %d\t%F\nAccess: (%a/%A)  Uid: %u (%U)  Gid: %g (%G)\nModify: %y"
	}
	for _, name := range f.Args() {
		fi, err := stat(name)
		if err != nil {
			return err
		}
		fmt.Fprintln(s.Out, statFormat(*format, name, fi))
	}
	return nil
}

func statFormat(format, name string, fi fs.FileInfo) string {
	st, _ := fi.Sys().(*syscall.Stat_t)
	if st == nil {
		return name
	}
	p := func(v any) string { return fmt.Sprint(v) }
	return strings.NewReplacer("%%", "%", "%n", name, "%s", p(fi.Size()), "%a", fmt.Sprintf("%o", st.Mode&0o7777), "%A", modeText(fi.Mode()),
		"%u", p(st.Uid), "%g", p(st.Gid), "%U", userName(p(st.Uid)), "%G", groupName(p(st.Gid)), "%i", p(st.Ino), "%h", p(st.Nlink), "%d", p(st.Dev),
		"%F", kindText(fi), "%Y", p(fi.ModTime().Unix()), "%y", fi.ModTime().Format(time.RFC3339Nano)).Replace(format)
}

func kindText(fi fs.FileInfo) string {
	switch m := fi.Mode(); {
	case m.IsDir():
		return "directory"
	case m&fs.ModeSymlink != 0:
		return "symbolic link"
	case m&fs.ModeNamedPipe != 0:
		return "fifo"
	case m&fs.ModeSocket != 0:
		return "socket"
	case m&fs.ModeCharDevice != 0:
		return "character special file"
	case m&fs.ModeDevice != 0:
		return "block special file"
	case fi.Size() == 0:
		return "regular empty file"
	}
	return "regular file"
}
