package host

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"isle/internal/toolbox/applet"
)

// Free prints memory. The numbers are the machine's, not the control group's.
func Free(_ context.Context, s applet.IO, args []string) error {
	fs := applet.Flags(s, "free [-bkmgh]")
	human := fs.BoolP("human", "h", false, "sizes like 1.5M")
	units := map[string]int64{"bytes": 1, "kibi": 1 << 10, "mebi": 1 << 20, "gibi": 1 << 30}
	for name := range units {
		fs.BoolP(name, name[:1], false, "in "+name)
	}
	if err := applet.Parse(fs, s, args); err != nil {
		return err
	}
	unit := int64(1024)
	for name, u := range units {
		if on, _ := fs.GetBool(name); on {
			unit = u
		}
	}
	m, err := meminfo()
	if err != nil {
		return err
	}
	show := func(n int64) string {
		if *human {
			return applet.Human(n)
		}
		return strconv.FormatInt(n/unit, 10)
	}
	w := tabwriter.NewWriter(s.Out, 0, 0, 2, ' ', tabwriter.AlignRight)
	cache := m["Buffers"] + m["Cached"] + m["SReclaimable"]
	fmt.Fprintln(w, "\ttotal\tused\tfree\tshared\tbuff/cache\tavailable\t")
	fmt.Fprintf(w, "Mem:\t%s\t%s\t%s\t%s\t%s\t%s\t\n", show(m["MemTotal"]), show(m["MemTotal"]-m["MemFree"]-cache), show(m["MemFree"]), show(m["Shmem"]), show(cache), show(m["MemAvailable"]))
	fmt.Fprintf(w, "Swap:\t%s\t%s\t%s\t\t\t\t\n", show(m["SwapTotal"]), show(m["SwapTotal"]-m["SwapFree"]), show(m["SwapFree"]))
	return w.Flush()
}

// meminfo is /proc/meminfo in bytes.
func meminfo() (map[string]int64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m := map[string]int64{}
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if w := strings.Fields(sc.Text()); len(w) >= 2 {
			n, err := strconv.ParseInt(w[1], 10, 64)
			if err != nil {
				return nil, err
			}
			m[strings.TrimSuffix(w[0], ":")] = n * 1024
		}
	}
	return m, sc.Err()
}
