package main

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const group = "simulation.node-classifier.io"

var groupVersion = schema.GroupVersion{Group: group, Version: "v1alpha1"}

// Condition is one entry of a VM's conditions; unlike metav1.Condition its reason and message may be empty.
type Condition struct {
	Type               string      `json:"type"`
	Status             string      `json:"status"`
	LastTransitionTime metav1.Time `json:"lastTransitionTime"`
	Reason             string      `json:"reason,omitempty"`
	Message            string      `json:"message,omitempty"`
}

// VirtualMachineSpec is the desired state, written by the user.
type VirtualMachineSpec struct {
	Resources Resources `json:"resources"`
	Running   *bool     `json:"running,omitempty"`
}

// Resources are shares of the reference node.
type Resources struct {
	CPU    string `json:"cpu"`
	Memory string `json:"memory"`
}

// VirtualMachineStatus is the observed state, published by the controller.
type VirtualMachineStatus struct {
	Phase             string       `json:"phase,omitempty"`
	NodeName          string       `json:"nodeName,omitempty"`
	PodName           string       `json:"podName,omitempty"`
	PodUID            string       `json:"podUID,omitempty"`
	Incarnation       *int32       `json:"incarnation,omitempty"`
	CPUConsumption    string       `json:"cpuConsumption,omitempty"`
	MemoryConsumption string       `json:"memoryConsumption,omitempty"`
	CreatedAt         *metav1.Time `json:"createdAt,omitempty"`
	Conditions        []Condition  `json:"conditions,omitempty"`
}

// VirtualMachine is the custom resource.
type VirtualMachine struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   VirtualMachineSpec   `json:"spec"`
	Status VirtualMachineStatus `json:"status,omitempty"`
}

// VirtualMachineList is a list of them.
type VirtualMachineList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []VirtualMachine `json:"items"`
}

func (vm *VirtualMachine) running() bool {
	return vm.Spec.Running == nil || *vm.Spec.Running
}

// DeepCopyInto is what controller-gen would generate.
func (vm *VirtualMachine) DeepCopyInto(out *VirtualMachine) {
	*out = *vm
	vm.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	if vm.Spec.Running != nil {
		running := *vm.Spec.Running
		out.Spec.Running = &running
	}
	vm.Status.deepCopyInto(&out.Status)
}

func (status *VirtualMachineStatus) deepCopyInto(out *VirtualMachineStatus) {
	*out = *status
	if status.Incarnation != nil {
		incarnation := *status.Incarnation
		out.Incarnation = &incarnation
	}
	out.CreatedAt = status.CreatedAt.DeepCopy()
	if status.Conditions != nil {
		out.Conditions = append([]Condition(nil), status.Conditions...)
	}
}

// DeepCopyObject makes a VirtualMachine a runtime.Object.
func (vm *VirtualMachine) DeepCopyObject() runtime.Object {
	out := new(VirtualMachine)
	vm.DeepCopyInto(out)
	return out
}

// DeepCopyObject makes a VirtualMachineList a runtime.Object.
func (list *VirtualMachineList) DeepCopyObject() runtime.Object {
	out := new(VirtualMachineList)
	*out = *list
	list.ListMeta.DeepCopyInto(&out.ListMeta)
	if list.Items != nil {
		out.Items = make([]VirtualMachine, len(list.Items))
		for i := range list.Items {
			list.Items[i].DeepCopyInto(&out.Items[i])
		}
	}
	return out
}

func addToScheme(scheme *runtime.Scheme) {
	scheme.AddKnownTypes(groupVersion, &VirtualMachine{}, &VirtualMachineList{})
	metav1.AddToGroupVersion(scheme, groupVersion)
}
