package main

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/big"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"k8s.io/apimachinery/pkg/runtime"
)

const (
	vmLabel           = group + "/vm"
	incarnationKey    = group + "/incarnation"
	cpuConsumption    = group + "/cpu-consumption"
	memoryConsumption = group + "/memory-consumption"
	requestedCPU      = group + "/requested-cpu"
	requestedMemory   = group + "/requested-memory"
	kwokUsageCPU      = "kwok.x-k8s.io/usage-cpu"
	kwokUsageMemory   = "kwok.x-k8s.io/usage-memory"

	alphabet     = "bcdfghjklmnpqrstvwxz2456789"
	suffixLength = 5
)

// The reference node of which every ratio is a share: millicores and bytes.
var (
	referenceCPU    = big.NewRat(32_000, 1)
	referenceMemory = big.NewRat(256<<30, 1)
)

// podName is a function of the VM's UID and incarnation, so that a repeated create collides.
func podName(vm *VirtualMachine, incarnation int32) string {
	digest := sha256.Sum256([]byte(fmt.Sprintf("%s/%d", vm.UID, incarnation)))
	number := binary.BigEndian.Uint64(digest[:8])
	suffix := make([]byte, suffixLength)
	for i := range suffix {
		suffix[i] = alphabet[number%uint64(len(alphabet))]
		number /= uint64(len(alphabet))
	}
	return "virt-launcher-" + vm.Name + "-" + string(suffix)
}

// share is ratio x reference in whole units, rounded down.
func share(ratio string, reference *big.Rat) string {
	value, ok := new(big.Rat).SetString(ratio)
	if !ok {
		return "0" // the CRD's schema refuses such a value
	}
	value.Mul(value, reference)
	return new(big.Int).Quo(value.Num(), value.Denom()).String()
}

type consumption struct{ cpu, memory string }

// consumptionOf is the VM's current consumption: its annotations, or else its spec.
func consumptionOf(vm *VirtualMachine) consumption {
	used := consumption{cpu: vm.Spec.Resources.CPU, memory: vm.Spec.Resources.Memory}
	if value, ok := vm.Annotations[cpuConsumption]; ok {
		used.cpu = value
	}
	if value, ok := vm.Annotations[memoryConsumption]; ok {
		used.memory = value
	}
	return used
}

func usageAnnotations(used consumption) map[string]string {
	return map[string]string{
		cpuConsumption:    used.cpu,
		memoryConsumption: used.memory,
		kwokUsageCPU:      share(used.cpu, referenceCPU) + "m",
		kwokUsageMemory:   share(used.memory, referenceMemory),
	}
}

func launcherPod(vm *VirtualMachine, incarnation int32, scheme *runtime.Scheme) (*corev1.Pod, error) {
	annotations := usageAnnotations(consumptionOf(vm))
	annotations[incarnationKey] = strconv.Itoa(int(incarnation))
	annotations["kubevirt.io/domain"] = vm.Name
	annotations[requestedCPU] = vm.Spec.Resources.CPU
	annotations[requestedMemory] = vm.Spec.Resources.Memory

	no, yes, user := false, true, int64(65535)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:        podName(vm, incarnation),
			Namespace:   vm.Namespace,
			Annotations: annotations,
			Labels: map[string]string{
				vmLabel:                  vm.Name,
				"kubevirt.io":            "virt-launcher",
				"kubevirt.io/created-by": string(vm.UID),
				"vm.kubevirt.io/name":    vm.Name,
			},
		},
		Spec: corev1.PodSpec{
			RestartPolicy:                corev1.RestartPolicyNever,
			AutomountServiceAccountToken: &no,
			EnableServiceLinks:           &no,
			NodeSelector:                 map[string]string{"type": "kwok"},
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot:   &yes,
				RunAsUser:      &user,
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Tolerations: []corev1.Toleration{
				{Key: "kwok.x-k8s.io/node", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
			},
			Containers: []corev1.Container{{
				Name:  "compute",
				Image: "registry.k8s.io/pause:3.10.1",
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: &no,
					Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
					corev1.ResourceCPU:    resource.MustParse(share(vm.Spec.Resources.CPU, referenceCPU) + "m"),
					corev1.ResourceMemory: resource.MustParse(share(vm.Spec.Resources.Memory, referenceMemory)),
				}},
			}},
		},
	}
	err := controllerutil.SetControllerReference(vm, pod, scheme, controllerutil.WithBlockOwnerDeletion(false))
	return pod, err
}

func incarnationOf(pod *corev1.Pod) int32 {
	number, err := strconv.ParseInt(pod.Annotations[incarnationKey], 10, 32)
	if err != nil {
		return -1
	}
	return int32(number)
}
