package docs_test

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

func TestLinks(t *testing.T) {
	t.Parallel()
	anchors := map[string][]string{}
	for _, p := range pages(t) {
		anchors[p.path] = p.anchors()
	}
	check(t, func(p page) []string { return brokenLinks(p, anchors) })
}

var (
	inlineLink    = regexp.MustCompile(`\]\(\s*<?([^)\s>]+)>?(?:\s+"[^"]*")?\s*\)`)
	referenceLink = regexp.MustCompile(`^ {0,3}\[[^\]]+\]:\s*(\S+)`)
	htmlLink      = regexp.MustCompile(`(?:src|href)="([^"]+)"`)
	code          = regexp.MustCompile("`[^`]*`")
	scheme        = regexp.MustCompile(`^[a-z]+:`)
)

func brokenLinks(p page, anchors map[string][]string) (problems []string) {
	for i, line := range p.prose {
		line = code.ReplaceAllStringFunc(line, func(s string) string { return strings.Repeat("x", len(s)) })
		for _, pattern := range []*regexp.Regexp{inlineLink, referenceLink, htmlLink} {
			for _, found := range pattern.FindAllStringSubmatch(line, -1) {
				if why := broken(p, found[1], anchors); why != "" {
					problems = append(problems, p.problem(i+1, "link %s: %s", found[1], why))
				}
			}
		}
	}
	return problems
}

func broken(p page, link string, anchors map[string][]string) string {
	if scheme.MatchString(link) {
		return "" // the web is not ours to test
	}
	if strings.HasPrefix(link, "/") {
		return "is not relative"
	}
	file, anchor, hasAnchor := strings.Cut(link, "#")
	target := path.Join(path.Dir(p.path), file)
	if file == "" {
		if slices.Contains(anchors[p.path], anchor) {
			return ""
		}
		return "no heading of that name on this page"
	}
	info, err := os.Stat(filepath.Join(root, target))
	switch {
	case strings.HasPrefix(target, ".."):
		return "leads out of the repository"
	case err != nil:
		return "no such file"
	case slices.Contains(notOurs, strings.Split(target, "/")[0]):
		return "is not part of the repository"
	case hasAnchor && (info.IsDir() || path.Ext(target) != ".md"):
		return "line numbers and anchors in files that are no pages do not last: link to the file"
	case hasAnchor && !slices.Contains(anchors[target], anchor):
		return "no heading of that name in " + target
	}
	return ""
}

var (
	heading    = regexp.MustCompile(`^#{1,6}\s+(.*?)[\s#]*$`)
	htmlAnchor = regexp.MustCompile(`<a\s+(?:id|name)="([^"]+)"`)
	linkText   = regexp.MustCompile(`!?\[([^\]]*)\]\([^)]*\)`)
)

// anchors returns the names that GitHub gives to headings. They are in lower case and without
// punctuation, with hyphens for spaces and numbers for repetitions.
func (p page) anchors() (all []string) {
	times := map[string]int{}
	for _, line := range p.prose {
		for _, found := range htmlAnchor.FindAllStringSubmatch(line, -1) {
			all = append(all, found[1])
		}
		found := heading.FindStringSubmatch(line)
		if found == nil {
			continue
		}
		slug := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r):
				return unicode.ToLower(r)
			}
			return -1
		}, linkText.ReplaceAllString(found[1], "$1"))
		name := slug
		if n := times[slug]; n > 0 {
			name += "-" + strconv.Itoa(n)
		}
		times[slug]++
		all = append(all, name)
	}
	return all
}
