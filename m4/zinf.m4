# How configure finds a library, once for all of them.
#
# Every --with-X means the same: not given = look for it and show yes or no in the closing table; yes or a folder =
# it must be there, else configure ends and names the Debian package; no = do not look. A library counts as found
# only when a program that uses it links: a header alone has misled too many configure scripts.

# ZINF_WITH(OPTION, WHAT FOR): declares --with-OPTION[=DIR]; with_OPTION is auto, yes, no or the folder.
AC_DEFUN([ZINF_WITH], [AC_ARG_WITH([$1],
    [AS_HELP_STRING([--with-$1@<:@=DIR@:>@], [$2 (default: used when found)])],
    [AS_IF([test "x$withval" = x], [with_$1=yes])], [with_$1=auto])])

# ZINF_ROW(FEATURE, VERSION, WHAT FOR, PACKAGE): one line of the closing table, yes or no by the variable found.
AC_DEFUN([ZINF_ROW], [
    zinf_format='  %-11s %-6s %-9s %-42s %s'
    zinf_table="$zinf_table`printf "$zinf_format" "$1" "$found" "$2" "$3" "$4"`
"
    zinf_libraries="$zinf_libraries`printf '  %-11s %-6s %s' "$1" "$found" "$2"`\\n"])

# ZINF_TRY_LINK(CFLAGS, LIBS, HEADER, CALL, IF YES, IF NO)
AC_DEFUN([ZINF_TRY_LINK], [
    zinf_saved_cflags=$CFLAGS zinf_saved_cxxflags=$CXXFLAGS zinf_saved_libs=$LIBS
    CFLAGS="$CFLAGS $1" CXXFLAGS="$CXXFLAGS $1" LIBS="$2 $LIBS"
    AC_LINK_IFELSE([AC_LANG_PROGRAM([#include <$3>], [$4])], [zinf_links=yes], [zinf_links=no])
    CFLAGS=$zinf_saved_cflags CXXFLAGS=$zinf_saved_cxxflags LIBS=$zinf_saved_libs
    AS_IF([test $zinf_links = yes], [$5], [$6])])

# ZINF_MACROS(VARIABLE, CFLAGS, HEADER, TOKENS): what the preprocessor makes of TOKENS after HEADER, without blanks.
AC_DEFUN([ZINF_MACROS], [
    printf '#include <%s>\nzinf_tokens %s\n' "$3" '$4' > conftest.c
    $1=`$CC $CPPFLAGS $2 -E -P conftest.c 2>/dev/null | tr -d '" \n' | sed 's/.*zinf_tokens//'`
    rm -f conftest.c
    AS_IF([test "x[$]$1" = x], [$1=-])])

# ZINF_SPLIT_FLAGS(PREFIX, WORDS): a compiler wrapper's "-show" line into PREFIX_CFLAGS and PREFIX_LIBS.
AC_DEFUN([ZINF_SPLIT_FLAGS], [
    $1_CFLAGS= $1_LIBS=
    for zinf_word in $2; do
        AS_CASE([$zinf_word],
            [-I*|-D*|-pthread], [$1_CFLAGS="[$]$1_CFLAGS $zinf_word"],
            [-L*|-l*|-Wl*|*/lib*.so|*/lib*.a], [$1_LIBS="[$]$1_LIBS $zinf_word"])
    done])

# ZINF_DIR_FLAGS(PREFIX, DIR, LIBRARY): flags for a library below DIR, found there at run time too.
AC_DEFUN([ZINF_DIR_FLAGS], [
    zinf_lib=$2/lib
    AS_IF([test -d "$2/lib64"], [zinf_lib=$2/lib64])
    $1_CFLAGS="-I$2/include" $1_LIBS="-L$zinf_lib -Wl,-rpath,$zinf_lib -l$3"])

# ZINF_LIBRARY(OPTION, PREFIX, CANDIDATES, LIBRARY, HEADER, CALL, [MORE CFLAGS], [MORE LIBS])
# Takes the first candidate with which a program that makes CALL links; sets found, version, PREFIX_CFLAGS, PREFIX_LIBS.
# A candidate is pc:MODULE (pkg-config), show:WRAPPER (a compiler wrapper that knows -show), -lNAME or a folder that holds
# include/HEADER. --with-OPTION=DIR leaves two: the wrappers in DIR/bin, and -lLIBRARY below DIR.
AC_DEFUN([ZINF_LIBRARY], [
    found=no version=- $2_CFLAGS= $2_LIBS=
    zinf_candidates="$3"
    AS_CASE([$with_$1], [no], [zinf_candidates=], [*/*], [
        zinf_candidates=
        for zinf_word in $3; do
            AS_CASE([$zinf_word], [show:*],
                [zinf_candidates="$zinf_candidates `AS_ECHO(["$zinf_word"]) | sed "s|:|:$with_$1/bin/|"`"])
        done
        zinf_candidates="$zinf_candidates $with_$1"])
    AC_MSG_CHECKING([for $1])
    for zinf_candidate in $zinf_candidates; do
        version=-
        AS_CASE([$zinf_candidate],
            [pc:*], [zinf_module=`AS_ECHO(["$zinf_candidate"]) | sed s/^pc://`
                $PKG_CONFIG --exists $zinf_module || continue
                $2_CFLAGS=`$PKG_CONFIG --cflags $zinf_module`
                $2_LIBS=`$PKG_CONFIG --libs $zinf_module`
                version=`$PKG_CONFIG --modversion $zinf_module`],
            [show:*], [zinf_wrapper=`AS_ECHO(["$zinf_candidate"]) | sed s/^show://`
                zinf_words=`$zinf_wrapper -show 2>/dev/null` || continue
                ZINF_SPLIT_FLAGS([$2], [$zinf_words])],
            [-*], [$2_CFLAGS= $2_LIBS=$zinf_candidate],
            [test -f "$zinf_candidate/include/$5" || continue
                ZINF_DIR_FLAGS([$2], [$zinf_candidate], [$4])])
        ZINF_TRY_LINK([[$]$2_CFLAGS $7], [[$]$2_LIBS $8], [$5], [$6], [found=yes; break])
    done
    AS_IF([test $found = no], [$2_CFLAGS= $2_LIBS= version=-])
    AS_IF([test $found = yes], [AC_MSG_RESULT([yes, by $zinf_candidate])], [AC_MSG_RESULT([no])])
    AC_SUBST([$2_CFLAGS])
    AC_SUBST([$2_LIBS])])

# ZINF_WANTED(OPTION, PACKAGE): ends configure when --with-OPTION was given and the library was not found.
AC_DEFUN([ZINF_WANTED], [AS_IF([test "$found" = no && test "x$with_$1" != xauto && test "x$with_$1" != xno],
    [AC_MSG_ERROR([--with-$1=$with_$1 was given, but no program that uses it links (Debian package: $2). \
What the compiler said stands in config.log.])])])

# ZINF_FLAG(VARIABLE, FLAG): adds FLAG when compiler and linker take it without a word.
AC_DEFUN([ZINF_FLAG], [
    AC_MSG_CHECKING([whether $CC takes $2])
    zinf_saved_cflags=$CFLAGS
    CFLAGS="$CFLAGS -Werror [$]$1 $2"
    AC_LINK_IFELSE([AC_LANG_PROGRAM([#include <string.h>], [])], [zinf_links=yes], [zinf_links=no])
    CFLAGS=$zinf_saved_cflags
    AC_MSG_RESULT([$zinf_links])
    AS_IF([test $zinf_links = yes], [$1="[$]$1 $2"])])
