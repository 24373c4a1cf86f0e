package drivertest_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// block is a file of the tutorial: its name, then its text.
var block = regexp.MustCompile("(?m)^`(internal/\\S+\\.go)`\n\n```go\n((?s:.*?))^```$")

// TestTutorial compiles and runs what docs/drivers.md says, as if it were there.
func TestTutorial(t *testing.T) {
	root, err := filepath.Abs("../../../..")
	if err != nil {
		t.Fatal(err)
	}
	overlay := spread(t, root)
	for pkg, tests := range map[string]string{"./internal/network/driver/labswitch": ".", "./internal/network/live": "^TestLabSwitch$"} {
		program := filepath.Join(t.TempDir(), "test")
		run(t, root, "go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", program, pkg)
		t.Log(run(t, t.TempDir(), program, "-test.run", tests, "-test.v"))
	}
}

func run(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

// spread puts the files of the tutorial beside the others for the go command, and
// nowhere else.
func spread(t *testing.T, root string) (overlay string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs/drivers.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir, where := t.TempDir(), map[string]string{}
	for _, b := range block.FindAllStringSubmatch(string(text), -1) {
		file := filepath.Join(dir, filepath.Base(filepath.Dir(b[1]))+"-"+filepath.Base(b[1]))
		where[filepath.Join(root, b[1])] = write(t, file, b[2])
	}
	if len(where) != 4 {
		t.Fatalf("the tutorial has %d files", len(where))
	}
	j, err := json.Marshal(map[string]any{"Replace": where})
	if err != nil {
		t.Fatal(err)
	}
	return write(t, filepath.Join(dir, "overlay.json"), string(j))
}

func write(t *testing.T, file, text string) string {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
