using System.Text.Json;
using Mesh.Cni;
using Mesh.Netlink;

// mesh-cni: the CNI plugin. A process per call: what the runtime says is in the environment and on standard input, the result or the error
// goes to standard output, words for people to standard error.
//
//   runtime ─► CallEnvironment, CallConfiguration ─► AddCall ─► AgentSocket (POST ipam, PUT endpoint) ─► agent
//                                                    DeleteCall, CheckCall, CollectCall, StatusCall     PodDevice ─► kernel
if (Environment.GetEnvironmentVariable("CNI_COMMAND") is not { Length: > 0 } command)
    return Installation.Run(args);

var input = ReadInput();
var version = CallConfiguration.VersionOf(input);
byte[] output;
var exitCode = 0;
try
{
    output = Answer(command);
}
catch (Exception e) when (e is CniException or AgentAwayException or NetlinkException or NotKnownException or IOException
    or UnauthorizedAccessException or JsonException)
{
    exitCode = 1;
    output = CallResult.Error(version, e switch
    {
        CniException known => known,
        AgentAwayException => new CniException(CniCode.TryAgainLater, e.Message),
        NetlinkException => new CniException(CniCode.Kernel, e.Message),
        NotKnownException => new CniException(CniCode.Refused, $"the agent does not know this question: {e.Message}: is it of another version?"),
        _ => new CniException(CniCode.InputOutput, e.Message),
    });
}
using (var stdout = Console.OpenStandardOutput())
    stdout.Write(output);
return exitCode;

byte[] Answer(string command)
{
    if (command == "VERSION")
        return CallResult.Versions(version);
    if (command is not ("ADD" or "DEL" or "CHECK" or "GC" or "STATUS"))
        throw new CniException(CniCode.BadEnvironment, $"CNI_COMMAND '{command}' must be ADD, DEL, CHECK, GC, STATUS or VERSION");
    var configuration = CallConfiguration.Read(input, Environment.GetEnvironmentVariable);
    return command switch
    {
        "ADD" => AddCall.Run(Call(isAdd: true, needsSpace: true), configuration),
        "DEL" => DeleteCall.Run(Call(isAdd: false, needsSpace: false), configuration),
        "CHECK" => CheckCall.Run(Call(isAdd: false, needsSpace: true), configuration),
        "GC" => CollectCall.Run(configuration),
        _ => StatusCall.Run(configuration),
    };
}

static CallEnvironment Call(bool isAdd, bool needsSpace) =>
    CallEnvironment.Read(Environment.GetEnvironmentVariable, isAdd, needsSpace);

static byte[] ReadInput()
{
    using var stdin = Console.OpenStandardInput();
    using var bytes = new MemoryStream();
    stdin.CopyTo(bytes);
    return bytes.ToArray();
}
