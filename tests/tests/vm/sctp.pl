# SCTP, one association after the other (RFC 6458 §4): `listen IP PORT` tells each who was reached and who is seen;
# `ask IP PORT` prints that.
use strict;
use Socket qw(:all);

my ($verb, $ip, $port) = @ARGV;
my $is_v6 = $ip =~ /:/;
my $at = $is_v6 ? pack_sockaddr_in6($port, inet_pton(AF_INET6, $ip)) : pack_sockaddr_in($port, inet_aton($ip));
sub called {
    my ($at) = @_;
    return $is_v6 ? inet_ntop(AF_INET6, (unpack_sockaddr_in6($at))[1]) : inet_ntoa((unpack_sockaddr_in($at))[1]);
}

socket(my $socket, $is_v6 ? PF_INET6 : PF_INET, SOCK_STREAM, 132) or die "socket: $!\n";
if ($verb eq 'listen') {
    bind($socket, $at) or die "bind: $!\n";
    listen($socket, 8) or die "listen: $!\n";
    while (my $peer = accept(my $one, $socket)) {
        syswrite($one, called(getsockname($one)) . ' ' . called($peer) . "\n");
        close($one);
    }
} else {
    $SIG{ALRM} = sub { die "no answer\n" };
    alarm(5);
    connect($socket, $at) or die "connect: $!\n";
    sysread($socket, my $line, 200) or die "read: $!\n";
    print $line;
}
