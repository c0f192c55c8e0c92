// Namespaces, cgroups and BPF are Linux: say so once, so that the analyzer does not ask at every file mode.
[assembly: System.Runtime.Versioning.SupportedOSPlatform("linux")]
