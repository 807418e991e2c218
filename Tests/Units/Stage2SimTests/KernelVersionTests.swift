import Stage2Sim
import Testing

@Suite struct KernelVersionTests {
  @Test(arguments: [
    ("6.1.192", KernelVersion.linux61), ("6.12.117", .linux612), ("6.12.0-rc3+", .linux612),
    ("5.10", .linux510),
    ("5.15.0", .linux510), ("5.4.200", .linux510), ("6.11.9", .linux61), ("7.2-rc1", .linux612),
    ("7.3.4", .linux73),
    ("7.10", .linux73), ("8.0", .linux73), ("", .linux510), ("no release", .linux510),
  ])
  func releaseHasAVersion(release: String, version: KernelVersion) {
    #expect(KernelVersion(closestTo: release) == version)
  }
}
