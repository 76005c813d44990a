/*
 * The program: finds the command and runs it.
 */
#include <stdio.h>

int main(void)
{
    printf("zinf\n");
    return 0;
}
