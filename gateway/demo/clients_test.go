package demo

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testlab"
)

// vdirsyncer discovers, copies everything here, and takes changes back.
func TestVdirsyncer(t *testing.T) {
	testlab.Need(t, "vdirsyncer")
	c := newDAV(t)
	dir := t.TempDir()
	config := filepath.Join(dir, "config")
	text := fmt.Sprintf("[general]\nstatus_path = %q\n", filepath.Join(dir, "status"))
	for kind, suffix := range map[string]string{"caldav": ".ics", "carddav": ".vcf"} {
		text += fmt.Sprintf("[pair %[1]s]\na = \"here_%[1]s\"\nb = \"there_%[1]s\"\ncollections = [\"from b\"]\nmetadata = [\"displayname\"]\n"+
			"[storage here_%[1]s]\ntype = \"filesystem\"\npath = %[2]q\nfileext = %[3]q\n"+
			"[storage there_%[1]s]\ntype = %[1]q\nurl = \"http://%[4]s/\"\nusername = %[5]q\npassword = %[6]q\n",
			kind, filepath.Join(dir, kind), suffix, c.b.DAVAddress, alice, c.b.DAVPassword)
	}
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(command string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "vdirsyncer", "-c", config, command)
		cmd.Stdin = strings.NewReader(strings.Repeat("y\n", 10)) // make the folders
		cmd.Env = append(os.Environ(), "HOME="+dir, "LC_ALL=C.UTF-8")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("vdirsyncer %s: %v\n%s", command, err, out)
		}
	}
	run("discover")
	run("sync")
	run("metasync")
	for folder, want := range map[string]int{"caldav/personal": 5, "caldav/work": 4, "caldav/tasks": 4, "carddav/contacts": 10} {
		files, err := filepath.Glob(filepath.Join(dir, folder, "*.*"))
		if err != nil || len(files) != want {
			t.Errorf("%s: got %q, want %d files", folder, files, want)
		}
	}
	if name, err := os.ReadFile(filepath.Join(dir, "caldav/tasks/displayname")); string(name) != "Tasks" {
		t.Errorf("the tasks are called %q, %v", name, err)
	}

	made, changed := filepath.Join(dir, "caldav/personal/made.ics"), fileWith(t, filepath.Join(dir, "carddav/contacts"), "enzo@")
	write(t, made, newEvent("made", "made here"))
	write(t, changed, newCard("enzo@demo.postern.example", "Enzo Junior"))
	if err := os.Remove(fileWith(t, filepath.Join(dir, "caldav/tasks"), "gift@")); err != nil {
		t.Fatal(err)
	}
	run("sync")
	if got := c.expect(200, "GET", personal+"made.ics", "").body; got != newEvent("made", "made here") {
		t.Errorf("got %q", got)
	}
	c.has(c.expect(200, "GET", people+"enzo.vcf", ""), "Enzo Junior")
	c.expect(404, "GET", calendarHome+"tasks/gift.ics", "")

	c.expect(204, "DELETE", personal+"made.ics", "")
	c.expect(204, "PUT", people+"mei.vcf", newCard("mei@demo.postern.example", "May"))
	run("sync")
	if _, err := os.Stat(made); !os.IsNotExist(err) {
		t.Errorf("%s: %v", made, err)
	}
	if card, err := os.ReadFile(fileWith(t, filepath.Join(dir, "carddav/contacts"), "mei@")); !strings.Contains(string(card), "May") {
		t.Errorf("got %q, %v", card, err)
	}
}

// fileWith finds a file by its UID: vdirsyncer gives names of its own.
func fileWith(t *testing.T, dir, uid string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), "UID:"+uid) {
			return file
		}
	}
	t.Fatalf("nothing with UID %s in %s", uid, dir)
	return ""
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
