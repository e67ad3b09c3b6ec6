package docs_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A check that never fails proves nothing, so each check runs on a page with the mistake that it
// looks for.
func TestChecksNotice(t *testing.T) {
	t.Parallel()
	n := known(t)
	links := func(p page) []string {
		return brokenLinks(p, map[string][]string{p.path: p.anchors(), "README.md": {"run-it"}})
	}
	called := func(p page) []string { return unknownNames(p, n) }
	for name, tc := range map[string]struct {
		find     func(page) []string
		markdown string
		expected string // "" for a page that is right
	}{
		"LinksThatAreRight":     {links, "# A `b` [c](https://x): d\n[1](../README.md#run-it) [2](#a-b-c-d) [3](../lab) [4](https://x.y/z#w) `[5](none.md)`", ""},
		"HeadingTwice":          {links, "# A\n# A\n[1](#a-1)", ""},
		"NoFile":                {links, "x\n[1](none.md)", "docs/x.md:2: link none.md: no such file"},
		"NoImage":               {links, "![1](none.svg)", "no such file"},
		"NoReference":           {links, "[1]: none.md", "no such file"},
		"NoAnchor":              {links, "# A\n[1](#b)", "no heading of that name on this page"},
		"NoAnchorElsewhere":     {links, "[1](../README.md#run)", "no heading of that name in README.md"},
		"AnchorOfACommentOnly":  {links, "```sh\n# b\n```\n[1](#b)", "no heading"},
		"LineNumber":            {links, "[1](../Makefile#L7)", "do not last"},
		"AbsoluteLink":          {links, "[1](/README.md)", "is not relative"},
		"Outside":               {links, "[1](../../etc)", "out of the repository"},
		"BuiltFile":             {links, "[1](../node_modules)", "is not part"},
		"NamesThatAreRight":     {called, "`make -s chaos SABOTAGE=list` make sure `beside make\ndev` `bin/lab` `.cache/bin/x` `CMD=\"down-to 2\" make migrate`", ""},
		"NoTarget":              {called, "`FRESH=1 make none`", "make none"},
		"NoTargetOverALinesEnd": {called, "`make\nnone`", "make none"},
		"NoTargetInAFence":      {called, "```sh\nx \"$(make -s none STAGE=dev)\"\n```", "docs/x.md:2: make none"},
		"NoTargetInAContinued":  {called, "```sh not-run\nx \\\n  && make none # make sure\n```", "docs/x.md:2: make none"},
		"NoProgram":             {called, "`bin/none -x`", "bin/none"},
		"NoCommand":             {called, "`outboxctl none`", "outboxctl none"},
		"NoCommandInAnOutput":   {called, "```\n$ bin/outboxctl none\n```", "docs/x.md:2: outboxctl none"},
		"ExcerptThatIsRight":    {wrongExcerpts, "```yaml file=.github/workflows/ci.yml\n- run: bash .ci/run\n```\n```json file=package.json\n{\n// ...\n  \"engines\": {\n    \"node\": \">=20.19\"\n\n# ...\n}\n```", ""},
		"ChangedLine":           {wrongExcerpts, "```json file=package.json\n  \"engines\": {\n    \"node\": \">=18\"\n```", `docs/x.md:3: excerpt of package.json: no longer there, or not in this place: "\"node\": \">=18\""`},
		"LeftOutInSilence":      {wrongExcerpts, "```json file=package.json\n{\n  \"license\": \"MIT\",\n```", "docs/x.md:3:"},
		"WrongOrder":            {wrongExcerpts, "```json file=package.json\n  \"license\": \"MIT\",\n// ...\n  \"private\": true,\n```", "docs/x.md:4:"},
		"WrongIndentation":      {wrongExcerpts, "```json file=package.json\n\"engines\": {\n\"node\": \">=20.19\"\n```", "docs/x.md:3:"},
		"OnlyLeftOut":           {wrongExcerpts, "```go file=outbox/event.go\n// ...\n```", "empty"},
		"ExcerptOfNothing":      {wrongExcerpts, "```go file=none.go\nx\n```", "no such file"},
		"CodeOfNoFile":          {wrongExcerpts, "```go\nx\n```", "without file="},
		"BashIsNotSh":           {wrongExcerpts, "```bash\nx\n```", "without file="},
		"FencesThatAreRight":    {unclearFences, "```sh\nmake test\n```\nNot run by us:\n```sh not-run\naws x\n```\n\nx\n\n```sh rehearsed\nmake url\n```\nby\nhand\n```sql not-run\nx\n```\n```\n$ make x\n```", ""},
		"NotRunInSilence":       {unclearFences, "This is not run.\n\nBut this?\n```sh not-run\naws x\n```\nnot run", "docs/x.md:4: not-run"},
		"UnknownClass":          {unclearFences, "```sh local\nx\n```", "sh local"},
		"RehearsedSQL":          {unclearFences, "```sql rehearsed\nx\n```", "sql rehearsed"},
		"CommandAsOutput":       {unclearFences, "```\nSTAGE=x make y\n```", "docs/x.md:2: a command"},
		"CommandIndented":       {unclearFences, "x\n\n    aws s3 ls", "docs/x.md:3: a command"},
		"AWSWithoutAWord":       {silentAboutAWS, "`aws logs tail x`", "aws logs tail x"},
		"AWSAndAnotherRun":      {silentAboutAWS, "`aws logs tail x`, nothing does at run time", "aws logs tail x"},
		"AWSWithAWord":          {silentAboutAWS, "`aws logs tail x`, not run by us", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			problems := strings.Join(tc.find(parse("docs/x.md", tc.markdown)), "\n")
			if tc.expected == "" {
				require.Empty(t, problems)
			}
			require.Contains(t, problems, tc.expected)
		})
	}
}

func TestWhatRunsElsewhereIsKnown(t *testing.T) {
	t.Parallel()
	run, all := rehearsal(t)
	for command, expected := range map[string]string{
		"make deploy STAGE=dev REGION=us-east-1": "",
		"make dms STOP=1":                        "",
		"make migrate STAGE=dev CMD=status":      "",
		"scripts/deploy.sh dev us-east-1":        "",
		"npx osls deploy --stage dev":            "",
		"aws lambda invoke --function-name x":    "",
		"make rotate STAGE=dev LOGIN=api":        "does not run scripts/migrate.sh with",
		"scripts/setup-db-schema.sh x y":         "does not run scripts/setup-db-schema.sh",
		"npx osls logs":                          "osls logs",
		"aws sqs start-message-move-task":        "aws sqs start-message-move-task",
		"curl https://x":                         "cannot be asked",
	} {
		if expected == "" {
			require.Empty(t, unrehearsed(t, command, run, all), command)
		}
		require.Contains(t, unrehearsed(t, command, run, all), expected, command)
	}
	ci := ciTargets(t)
	for command, expected := range map[string]bool{
		"make test": true, "make chaos SEED=7 # x": true, "make generate": true,
		"make soak": false, "make dev": false, "make test soak": false, "bin/outboxctl audit": false, "# make test": false,
	} {
		require.Equal(t, expected, coveredByCI(command, ci), command)
	}
}

func TestExitCodesAreThoseThatThePageStates(t *testing.T) {
	t.Parallel()
	d := &dev{dir: t.TempDir(), env: environment()}
	for command, expected := range map[string]string{
		"true":                           "",
		"false":                          "exit code 1, not 0",
		"false | true":                   "exit code 1, not 0",
		"exit 3 # ends with exit code 3": "",
		"true # exit code 1":             "exit code 0, not 1",
		"nothing-of-this-name":           "exit code 127, not 0",
		"cat <event-id>":                 "exit code 2, not 0",
		"FRESH=1 make dev":               "of another kind",
	} {
		err := d.run(t, command)
		if expected == "" {
			require.NoError(t, err, command)
			continue
		}
		require.ErrorContains(t, err, expected, command)
	}
}
