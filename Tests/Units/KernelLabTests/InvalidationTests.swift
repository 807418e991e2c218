import SystemPackage
import Testing

@testable import KernelLab

/// Tests of the observer's calls in KVM.
@Suite struct InvalidationTests {
  private let directory: TestDirectory
  private var source: FilePath { FilePath(directory.path) }
  private let kvm = "arch/arm64/kvm"
  private let calls = InvalidationCalls(header: Array("h".utf8), source: Array("c".utf8))

  init() throws {
    directory = try TestDirectory()
    try directory.write("\(kvm)/Makefile", "kvm-y += mmu.o")
    try directory.write(
      "\(kvm)/mmu.c", "void f(void)\n{\n\tkvm_call_hyp(__kvm_tlb_flush_vmid, mmu);\n}\n")
    try directory.write(
      "\(kvm)/hyp/pgtable.c",
      "\tkvm_call_hyp(__kvm_tlb_flush_vmid_ipa, mmu,\n\t\taddr, level);\n\tkvm_call_hyp(__kvm_flush_vm_context);\n"
    )
  }

  private func insert(_ overlay: Overlay = Overlay()) throws -> ([String: String], isComplete: Bool)
  {
    var overlay = overlay
    let isComplete = try calls.insert(into: &overlay, of: source)
    return (
      overlay.files.mapValues { $0.map { String(decoding: $0, as: UTF8.self) } ?? "-" }, isComplete
    )
  }

  @Test func invalidationsAreToldAndLinesKeepTheirNumbers() throws {
    let (files, isComplete) = try insert()
    #expect(isComplete)
    #expect(
      files == [
        "\(kvm)/virt-walker-lab/invalidation.h": "h",
        "\(kvm)/virt-walker-lab/invalidation.c": "c",
        "\(kvm)/Makefile": "kvm-y += mmu.o\nkvm-y += virt-walker-lab/invalidation.o\n",
        "\(kvm)/mmu.c":
          "#include \"virt-walker-lab/invalidation.h\"\n#line 1\nvoid f(void)\n{\n\tvirt_walker_call_hyp(__kvm_tlb_flush_vmid, mmu);\n}\n",
        "\(kvm)/hyp/pgtable.c":
          "#include \"../virt-walker-lab/invalidation.h\"\n#line 1\n\tvirt_walker_call_hyp(__kvm_tlb_flush_vmid_ipa, mmu,\n\t\taddr, level);\n\tkvm_call_hyp(__kvm_flush_vm_context);\n",
      ])
  }

  /// The user's files are changed in the same way, and their changes stay.
  @Test func invalidationsOfTheUsersFilesAreTold() throws {
    var overlay = Overlay()
    overlay.set("\(kvm)/virt-walker/hook.c", Array("kvm_call_hyp(__kvm_tlb_flush_vmid, mmu);".utf8))
    overlay.set("\(kvm)/mmio.c", Array("int f(void);".utf8))
    overlay.set("\(kvm)/mmu.c", Array("void f(void);".utf8))
    overlay.set("\(kvm)/psci.c", nil)
    let (files, isComplete) = try insert(overlay)
    #expect(!isComplete)
    #expect(
      files["\(kvm)/virt-walker/hook.c"]
        == "#include \"../virt-walker-lab/invalidation.h\"\n#line 1\nvirt_walker_call_hyp(__kvm_tlb_flush_vmid, mmu);"
    )
    #expect(files["\(kvm)/mmio.c"] == "int f(void);")
    #expect(files["\(kvm)/mmu.c"] == "void f(void);")
    #expect(files["\(kvm)/psci.c"] == "-")
  }

  @Test func treeWithoutKVMIsRefused() throws {
    var overlay = Overlay()
    overlay.set("\(kvm)/Makefile", nil)
    #expect(throws: LabFailure.self) { try insert(overlay) }
  }
}
