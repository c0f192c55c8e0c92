using CsCheck;
using Xunit;

namespace Mesh.KVStore.Tests;

public sealed class EtcdConfigFileTests
{
    private const string Cilium = """
        endpoints:
        - https://falcon.mesh.cilium.io:2379
        - https://10.0.0.1:2379
        trusted-ca-file: /var/lib/cilium/clustermesh/common-etcd-client-ca.crt
        key-file: '/var/lib/cilium/clustermesh/common-etcd-client.key'
        cert-file: "/var/lib/cilium/clustermesh/common-etcd-client.crt"
        cilium-host-aliases:
        - hostname: falcon.mesh.cilium.io
          ips: [10.0.0.1, 10.0.0.2]
        """;

    [Fact]
    public void The_file_of_Cilium_is_read_and_unknown_keys_are_skipped()
    {
        var options = EtcdConfigFile.Parse(Cilium);
        Assert.Equal(["https://falcon.mesh.cilium.io:2379", "https://10.0.0.1:2379"], options.Endpoints);
        Assert.Equal("/var/lib/cilium/clustermesh/common-etcd-client-ca.crt", options.TrustedCaFile);
        Assert.Equal("/var/lib/cilium/clustermesh/common-etcd-client.key", options.KeyFile);
        Assert.Equal("/var/lib/cilium/clustermesh/common-etcd-client.crt", options.CertFile);
    }

    [Fact]
    public void User_password_and_insecure_flags_are_read()
    {
        var options = EtcdConfigFile.Parse("endpoints: [http://a:1]\ninsecure-transport: true\ncert-file: x\nkey-file: y\n" +
            "insecure-skip-tls-verify: true\nusername: u\npassword: p\n");
        Assert.Equal(("u", "p", true, null), (options.Username, options.Password, options.InsecureSkipTlsVerify, options.CertFile));
    }

    [Theory]
    [InlineData("", "not a YAML mapping")]
    [InlineData("- a", "not a YAML mapping")]
    [InlineData("trusted-ca-file: x", "endpoints: none given")]
    [InlineData("endpoints: {a: b}", "'endpoints' must be a list")]
    [InlineData("endpoints: [10.0.0.1]", "'10.0.0.1' is not a URL")]
    [InlineData("endpoints: [https://a:1]\ncert-file: x", "key-file: missing")]
    [InlineData("endpoints: [https://a:1]\nusername: x", "password: missing")]
    [InlineData("endpoints: [https://a:1]\ninsecure-transport: perhaps", "'insecure-transport' is 'perhaps'")]
    [InlineData("endpoints: [https://a:1]\nkey-file: [x]", "line 2: 'key-file' must be text")]
    [InlineData("endpoints: [https://a:1]\nendpoints: [https://b:1]", "'endpoints' is given twice")]
    [InlineData("endpoints: [https://a:1\n", "not YAML")]
    [InlineData("endpoints:\n\t- x", "not YAML")]
    public void A_fault_names_the_field(string text, string expected) =>
        Assert.Contains(expected, Assert.Throws<FormatException>(() => EtcdConfigFile.Parse(text)).Message, StringComparison.Ordinal);

    [Fact]
    public void Any_text_is_read_or_refused_but_never_breaks_the_reader() =>
        Gen.Select(Gen.Int[0, Cilium.Length - 1], Gen.Int[0, 40], Gen.String[Gen.Char["\n\t :-[]{}'\"#&*!|>%@a0"], 0, 6])
            .Sample((at, remove, insert) =>
            {
                var text = Cilium.Remove(at, Math.Min(remove, Cilium.Length - at)).Insert(at, insert);
                try
                {
                    EtcdConfigFile.Parse(text);
                }
                catch (FormatException)
                {
                    // Refused with a reason: as good.
                }
            }, iter: 3000);
}
