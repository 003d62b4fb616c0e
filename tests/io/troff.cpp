// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Manual pages to text: small inputs and the text that a person would write for them.

#include "catch.hpp"

#include <string>
#include <string_view>

#include <graft/io/troff.hpp>

namespace troff_tests {

namespace {

std::string text_of(std::string_view page, bool* stub = nullptr) {
  graft::troff_filter filter;
  std::string out;
  while (!page.empty()) {
    const std::size_t end = std::min(page.find('\n'), page.size());
    filter.line(page.substr(0, end), out);
    page.remove_prefix(std::min(end + 1, page.size()));
  }
  filter.finish(out);
  if (stub != nullptr) *stub = filter.is_stub();
  return out;
}

}  // namespace

TEST_CASE("troff: titles, paragraphs and fonts", "[io][troff]") {
  CHECK(text_of(R"('\" t
.\" A comment with \fBfonts\fP
.TH open 2 2023-02-05 "Linux man-pages 6.03"
.SH NAME
open, creat \- open and possibly create a file
.SH DESCRIPTION
The
.BR open ()
system call opens the \fIfile\fP specified
by
.IR pathname . \" a comment
.\" A comment between
It
.B may
fail.
.PP
Second  paragraph (see
.BR read "(2), " write (2)).

Third\f(CWparagraph\fR\f[B]s\fP.
.SS "Sub section"
End.
)") == "NAME\n"
       "open, creat - open and possibly create a file\n"
       "\n"
       "DESCRIPTION\n"
       "The open() system call opens the file specified by pathname. It may fail.\n"
       "\n"
       "Second  paragraph (see read(2), write(2)).\n"
       "\n"
       "Thirdparagraphs.\n"
       "\n"
       "Sub section\n"
       "End.\n");
}

TEST_CASE("troff: a title on the line after its macro", "[io][troff]") {
  CHECK(text_of(".SH\nNAME\nls\n") == "NAME\nls\n");
}

TEST_CASE("troff: list items", "[io][troff]") {
  CHECK(text_of(R"(.SH OPTIONS
.TP
.BR \-a ", " \-\-all
do not ignore
entries
.TP
\fB\-c\fP
short tags stay on the line
.TP
.B \-\-one
.TQ
.B \-\-two
Both of them.
.IP \(bu 3
a bullet
.IP \(bu
another
.IP
its second paragraph
.RS
inside
.RE
.IP "long tag" 4
text
)") == "OPTIONS\n"
       "-a, --all\n"
       "do not ignore entries\n"
       "\n"
       "-c short tags stay on the line\n"
       "\n"
       "--one\n"
       "--two\n"
       "Both of them.\n"
       "\n"
       "• a bullet\n"
       "\n"
       "• another\n"
       "\n"
       "its second paragraph\n"
       "inside\n"
       "\n"
       "long tag\n"
       "text\n");
}

TEST_CASE("troff: examples keep their lines", "[io][troff]") {
  CHECK(text_of(R"(Before:
.PP
.in +4n
.EX
#include <stdio.h>

int main(void)
{
    printf("\(dqhi\(dq\en");
.B     return 0;
}
.EE
.in
.PP
After
it.
)") == "Before:\n"
       "\n"
       "#include <stdio.h>\n"
       "\n"
       "int main(void)\n"
       "{\n"
       "    printf(\"\"hi\"\\n\");\n"
       "return 0;\n"
       "}\n"
       "\n"
       "After it.\n");
}

TEST_CASE("troff: escapes", "[io][troff]") {
  CHECK(text_of(R"(\(aqa\(aq \[dq]b\[dq] \(co \(bu \e \\ \-x a\&b a\/b\,c a\|b\^c d\ e\~f\0g)"
                "\n") == "'a' \"b\" © • \\ \\ -x ab abc abc d e f g\n");
  CHECK(text_of(R"(\s-1small\s0 \s+2big\s-2 \s10ten\s0 \s(12x\s[14]y \v'-1p'up\h'2m'right\w'abc'w)"
                "\n") == "small big ten xy uprightw\n");
  CHECK(text_of(R"(\(em\(en\(lqq\(rq\(<=\(*a\(*W \[u2019]\[u0065_0301]\N'65'\C'bu')"
                "\n") ==
        "—–“q”≤αΩ ’e\xCC\x81"
        "A•\n");
  CHECK(text_of(R"(\(^e\['e]\[`a]\(:o\(~n\(,c\[oe]\[ss]\[oa])"
                "\n") == "êéàöñçœßå\n");
  CHECK(text_of("Français « déjà »\n") == "Français « déjà »\n");
  CHECK(text_of("d\xE9j\xE0 in Latin-1\n") == "déjà in Latin-1\n");
  CHECK(text_of("a\\c\nb\nc\\\nd\n") == "ab cd\n");
}

TEST_CASE("troff: quotes in the arguments of macros", "[io][troff]") {
  CHECK(text_of(".BI \"int open(const char *\" pathname \", int \" flags );\n") ==
        "int open(const char *pathname, int flags);\n");
  CHECK(text_of(".B \"say \"\"yes\"\"\" now\n") == "say \"yes\" now\n");
  CHECK(text_of(".BR a\\ b c\n") == "a bc\n");
}

TEST_CASE("troff: conditionals, strings and macros", "[io][troff]") {
  CHECK(text_of(R"(.ie \n(.g .ds Aq \(aq
.el .ds Aq `
.ie t no
.el yes \*(Aq\*[Aq]
.if n \{\
for nroff
.ie t \{\
never \}
.el nested
.\}
.if t \{\
.de XX
.\}
.nr zZ 2
.if \n(zZ=2 two
.if !\n(zZ>1 never
.if 'a'b' never
.if 'a'a' same
)") == "yes '' for nroff nested two same\n");
  CHECK(text_of(R"(.de FN
<\fI\\$1\fP>\\$2
..
.de ignored
text
.  .
See
.FN "a file" .
.de loop
x
.loop
..
.loop
)") == "See <a file>. x x x x x x x x\n");
}

TEST_CASE("troff: text that expands without end stays in bounds", "[io][troff]") {
  std::string page = ".ds a \\*a\\*a\\*a\\*a\\*a\\*a\\*a\\*a\\*a\\*a\n\\*a\n.de m\n";
  for (int i = 0; i < 100; ++i) page += ".m\nx\n";
  page += "..\n.m\n";
  for (int i = 0; i < 20000; ++i) page += "\\o'";
  page += "\nend\n";
  const std::string text = text_of(page);
  CHECK(text.ends_with("end\n"));
  CHECK(text.size() < 1'000'000);
}

TEST_CASE("troff: tables are text", "[io][troff]") {
  CHECK(text_of(R"(Before
.TS
allbox tab(:);
lb lb
l l.
Name:Value
_
\fBa\fP:1
T{
.BR printf (3),
many words
T}:T{
cell
T}
b:T{
last
T}
.TE
After
)") == "Before\n"
       "\n"
       "Name | Value\n"
       "a | 1\n"
       "printf(3), many words | cell\n"
       "b | last\n"
       "\n"
       "After\n");
}

TEST_CASE("troff: links, licence sections and inclusions", "[io][troff]") {
  CHECK(text_of(".UR http://a.example\nthe\npage\n.UE .\n.MT a@b.example\nA\n.ME ,\nand\n") ==
        "the page <http://a.example>. A <a@b.example>, and\n");
  CHECK(text_of(".SH NOM\nx\n.SH TRADUCTION\nLa traduction\n.PP\nest libre\n.SH \"VOIR AUSSI\"\ny\n") ==
        "NOM\nx\n\nVOIR AUSSI\ny\n");
  bool stub = false;
  CHECK(text_of(".\\\" po4a\n.so man2/open.2\n", &stub).empty());
  CHECK(stub);
  CHECK(text_of("text\n", &stub) == "text\n");
  CHECK(!stub);
}

TEST_CASE("troff: the macros of mdoc", "[io][troff]") {
  CHECK(text_of(R"(.Dd May 1, 2020
.Dt FILE 1
.Os
.Sh NAME
.Nm file
.Nd determine file type
.Sh SYNOPSIS
.Nm
.Op Fl bc
.Op Ar dir
.Ar
.Sh DESCRIPTION
See
.Xr magic 5 ,
.Dq quoted words .
.Bl -tag
.It Fl b
brief
.El
)") == "NAME\n"
       "file - determine file type\n"
       "\n"
       "SYNOPSIS\n"
       "file [-bc] [dir] file ...\n"
       "\n"
       "DESCRIPTION\n"
       "See magic(5), “quoted words”.\n"
       "\n"
       "-b brief\n");
}

}  // namespace troff_tests
