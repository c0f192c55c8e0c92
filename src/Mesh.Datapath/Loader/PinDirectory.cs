using Mesh.Bpf;

namespace Mesh.Datapath.Loader;

/// <summary>
/// Where the datapath lives while nobody runs: maps, links and programs under BPFROOT/LAYOUT, one directory for each layout of the
/// maps, so that an agent of another layout never writes into these by mistake. BPFROOT/current leads to the one that serves.
/// </summary>
public sealed class PinDirectory
{
    /// <summary>The name that leads to the layout that serves.</summary>
    internal const string Current = "current";

    /// <summary>Of the layout that serves.</summary>
    public PinDirectory(string bpfRoot)
        : this(bpfRoot, Current)
    {
    }

    internal PinDirectory(string bpfRoot, string layout)
    {
        Root = bpfRoot;
        Layout = layout;
        Maps = Path.Combine(bpfRoot, layout, "maps");
        Links = Path.Combine(bpfRoot, layout, "links");
        Programs = Path.Combine(bpfRoot, layout, "programs");
    }

    public string Root { get; }

    internal string Layout { get; }

    public string Maps { get; }

    public string Links { get; }

    /// <summary>See <see cref="ProgramPins"/>.</summary>
    internal string Programs { get; }

    public string Map(string name) => Path.Combine(Maps, name);

    public string Link(string name) => Path.Combine(Links, name);

    /// <summary>True when a datapath has been made here before.</summary>
    public bool Exists => Directory.Exists(Maps);

    /// <exception cref="DatapathException">The root is not on a bpffs, or may not be written.</exception>
    internal void Create()
    {
        try
        {
            Directory.CreateDirectory(Maps);
            Directory.CreateDirectory(Links);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new DatapathException($"cannot create {Maps}: {exception.Message} (give --bpf-root a directory on a bpffs: "
                + $"mount -t bpf bpf {Root})", exception);
        }
    }

    internal void RemoveLink(string name) => File.Delete(Link(name));

    internal IEnumerable<string> LinkNames() =>
        Directory.Exists(Links) ? Directory.EnumerateFileSystemEntries(Links).Select(path => Path.GetFileName(path)!) : [];
}

/// <summary>Attaches programs so that they stay attached without us: by pinned links, whose program a later start exchanges in one
/// step. On kernels without tcx the legacy filter takes the place of the link on devices.</summary>
internal sealed class Attachments
{
    private readonly PinDirectory _pins;
    private readonly BpfFeatures _features;

    /// <summary>Links that this process has given a program.</summary>
    private readonly HashSet<string> _ours = [];
    private readonly Action<string>? _failpoint;

    /// <param name="failpoint">Called before each exchange.</param>
    internal Attachments(PinDirectory pins, BpfFeatures features, Action<string>? failpoint = null)
    {
        _failpoint = failpoint;
        _pins = pins;
        _features = features;
    }

    /// <summary>Device of the calling thread's network namespace.</summary>
    internal void ToInterface(string link, BpfProgram program, int interfaceIndex)
    {
        if (!_features.Tcx)
        {
            ClsactFilter.AttachIngress(program, interfaceIndex);
            return;
        }
        Attach(link, program, () => BpfLink.AttachTcx(program, interfaceIndex), info => info.InterfaceIndex == interfaceIndex);
    }

    /// <summary>As <see cref="ToInterface"/>, on the way out. Only by a link: without tcx it is not attached.</summary>
    internal void ToEgress(string link, BpfProgram program, int interfaceIndex)
    {
        if (_features.Tcx)
            Attach(link, program, () => BpfLink.AttachTcx(program, interfaceIndex, BpfAttachType.TcxEgress),
                info => info.InterfaceIndex == interfaceIndex);
    }

    /// <summary>To the driver's own hook.</summary>
    /// <returns>Why the driver would not have it; null when it is attached.</returns>
    internal string? TryToXdp(string link, BpfProgram program, int interfaceIndex)
    {
        try
        {
            Attach(link, program, () => BpfLink.AttachXdp(program, interfaceIndex), info => info.InterfaceIndex == interfaceIndex);
            return null;
        }
        catch (BpfException refused)
        {
            return refused.Message;
        }
    }

    /// <summary>"tcx" or "clsact".</summary>
    internal string Kind => _features.Tcx ? "tcx" : "clsact";

    internal void ToCgroup(string link, BpfProgram program, string cgroupPath)
    {
        var inode = CgroupInode.Of(cgroupPath);
        Attach(link, program, () => BpfLink.AttachCgroup(program, cgroupPath), info => info.CgroupId == inode);
    }

    /// <summary>Detaches; an absent link is no error.</summary>
    /// <param name="interfaceIndex">Of a link to a device, for kernels where it is no link but a filter.</param>
    internal void Remove(string link, int interfaceIndex = 0)
    {
        if (!_features.Tcx && interfaceIndex > 0)
            ClsactFilter.DetachIngress(interfaceIndex);
        using var pinned = BpfLink.TryOpenPinned(_pins.Link(link));
        if (pinned is null)
            return;
        // Unpinning alone would detach too, but at a time of the kernel's choice.
        if (pinned.Info() is not { InterfaceIndex: 0, CgroupId: 0 })
            pinned.Detach();
        _pins.RemoveLink(link);
    }

    internal IEnumerable<string> Names => _pins.LinkNames();

    internal bool Has(string link) => File.Exists(_pins.Link(link));

    /// <summary>Detaches what another layout had attached and this one does not have.</summary>
    internal void RemoveForeign()
    {
        foreach (var link in Names.Where(name => !_ours.Contains(name)).ToList())
            Remove(link);
    }

    /// <summary>Exchanges the program of a pinned link to a device. False when the device is gone: then it is unpinned.</summary>
    internal bool Renew(string link, BpfProgram program)
    {
        using var pinned = BpfLink.TryOpenPinned(_pins.Link(link));
        if (pinned is null)
            return false;
        if (pinned.Info().InterfaceIndex == 0)
        {
            _pins.RemoveLink(link);
            return false;
        }
        _failpoint?.Invoke($"switch {link}");
        pinned.Update(program);
        _ours.Add(link);
        return true;
    }

    private void Attach(string link, BpfProgram program, Func<BpfLink> create, Func<BpfLinkInfo, bool> isRight)
    {
        _failpoint?.Invoke($"switch {link}");
        _ours.Add(link);
        using (var pinned = BpfLink.TryOpenPinned(_pins.Link(link)))
        {
            if (pinned is not null && isRight(pinned.Info()))
            {
                pinned.Update(program);
                return;
            }
            if (pinned is not null)
                _pins.RemoveLink(link);
        }
        using var created = create();
        created.Pin(_pins.Link(link));
    }
}
